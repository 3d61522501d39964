"""What held requests back, in words and figures."""
