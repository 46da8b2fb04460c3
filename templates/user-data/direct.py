# urllib supports names in no_proxy, but neither ranges nor IPv6 addresses
def direct(host):
    for entry in os.environ.get("no_proxy", "").replace("[", "").replace("]", "").split(","):
        try:
            if ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
