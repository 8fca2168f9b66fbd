"""Results as lines, tables, pictures, pages and files."""
