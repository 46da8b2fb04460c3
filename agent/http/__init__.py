"""HTTP as hosts have it: one client with bounded answers, downloads, trust, proxies, EC2's metadata."""
