"""What finds out whether alerts arrive: the watchdog alert, and alerts whose delivery was missed."""
