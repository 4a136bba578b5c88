"""Make the reference's answers, and measure which deliberate faults a comparison with them notices."""
