"""Shows results as lines, tables, pictures, pages and files."""
