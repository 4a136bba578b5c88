"""Every check of the doctor, by what it looks at."""
