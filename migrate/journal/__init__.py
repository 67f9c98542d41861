"""What a migration has done on this host, written before it is done."""
