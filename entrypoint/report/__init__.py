"""The page that `dsv4 report` writes."""
