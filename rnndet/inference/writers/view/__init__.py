"""The page that --save html writes: its template, style and script."""
