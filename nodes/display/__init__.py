"""What leaves for a terminal or a log: the one border where foreign text is made harmless."""
