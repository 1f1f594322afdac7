"""The program: ATen operators over named values, as data."""
