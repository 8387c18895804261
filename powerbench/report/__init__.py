"""Views of run folders: tables, figures, and one self-contained page. They read and never decide."""
