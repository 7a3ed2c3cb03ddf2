"""What older spec files meant: tables and steps of `spec.migrate`, which alone uses them."""
