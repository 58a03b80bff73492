"""One self-contained page: what was filtered, when, and why, with pictures."""
