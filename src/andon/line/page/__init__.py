"""Pages of a line: Jinja templates, a style sheet, ES modules. Nothing is built or fetched from elsewhere."""
