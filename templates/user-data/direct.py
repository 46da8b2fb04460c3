# urllib knows names in no_proxy, and neither ranges nor addresses of IPv6
def direct(host):
    for entry in os.environ.get("no_proxy", "").replace("[", "").replace("]", "").split(","):
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
