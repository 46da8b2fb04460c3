"""What Windows says and keeps, through any HostView: its firewall, signatures, and task scheduler."""
