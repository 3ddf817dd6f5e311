"""The page in the browser: static files, what the page has to know, and its way to the broker."""
