"""What the user is told: while it runs, at the end, and as a drawing."""
