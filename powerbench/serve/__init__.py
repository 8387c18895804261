"""An HTTP server that answers OpenAI's API with any sampler: requests are chains of one runner."""
