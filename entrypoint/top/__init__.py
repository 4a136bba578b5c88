"""What replicas do now, for `dsv4 top`."""
