"""Display: the one border to terminals and logs, where foreign text is made harmless."""
