"""Parts of Windows that the agent reads and changes through any HostView: firewall, signatures, task scheduler."""
