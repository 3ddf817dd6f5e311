"""`trisect bench load`: puts a running stream under load and says what it gives, next to what its plan predicts."""
