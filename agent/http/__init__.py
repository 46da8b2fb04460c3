"""HTTP on a host: one client with bounded answers, downloads, trust, proxies, EC2's metadata."""
