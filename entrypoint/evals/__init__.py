"""Quality against published figures, and one page of everything that was measured."""
