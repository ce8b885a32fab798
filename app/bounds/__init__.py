"""What bounds an exchange with anything outside: its time, its size, and the wait before the next attempt."""
