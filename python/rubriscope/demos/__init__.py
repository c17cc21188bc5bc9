"""Programs that show rubriscope at work; ``rubriscope demo NAME`` runs them."""
