"""Statistics: intervals, paired differences, chain diagnostics, length-controlled win rates."""
