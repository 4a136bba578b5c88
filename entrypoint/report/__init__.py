"""Write the page of `dsv4 report`."""
