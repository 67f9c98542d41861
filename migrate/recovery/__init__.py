"""What becomes of a migration that did not go to its end: taken back, settled, or asked about."""
