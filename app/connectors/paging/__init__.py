"""Pagers: services that call the person on call while an incident needs one."""
