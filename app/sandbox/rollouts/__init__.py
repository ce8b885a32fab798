"""How the controllers of StatefulSets and DaemonSets replace pods."""
