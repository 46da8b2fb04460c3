{% if source.url %}

fetch() {
    mkdir -p "$cache"
    timeout {{ patience }} "$python" -I - "$file" {{ source.sha256 }} <<'END'
{% include "user-data/fetch.py" %}
END
}
{% endif %}
{% if source.data %}

fetch() {
    mkdir -p "$cache"
    base64 -d >"$file" <<'END'
{{ source.text }}
END
}
{% endif %}

install_agent() {
{% if source.kind == "package" %}
    if command -v hsm-agent >/dev/null; then
        return 0
    fi
    # no distribution has it: if all repositories answered and none has it, fail at once
    if command -v apt-get >/dev/null; then
        dpkg --configure -a || return 1
        apt-get -q -o APT::Update::Error-Mode=any update
        asked=$?
        if apt-cache show hsm-agent >/dev/null 2>&1; then
            apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=60 install hsm-agent
            return
        fi
    else
        manager=dnf
        command -v dnf >/dev/null || manager=yum
        "$manager" -q makecache
        asked=$?
        if "$manager" -q -C list available hsm-agent >/dev/null 2>&1; then
            "$manager" -q -y install hsm-agent
            return
        fi
    fi
    [ "$asked" -eq 0 ] || return 1
    echo "hsm-agent is neither in this image nor in one of its package repositories"
    return 20
{% elif source.kind == "deb" %}
    command -v apt-get >/dev/null || {
        echo "a .deb cannot be installed here: there is no apt-get"
        return 22
    }
    # apt-get update only if the package alone does not suffice
    dpkg --configure -a && {
        apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=60 install "$file" || {
            apt-get -q update
            return 1
        }
    }
{% elif source.kind == "rpm" %}
    if command -v dnf >/dev/null; then
        dnf -q -y install "$file"
    elif command -v yum >/dev/null; then
        yum -q -y install "$file"
    else
        echo "an .rpm cannot be installed here: there is neither dnf nor yum"
        return 22
    fi
{% else %}
    rm -rf /opt/hsm-agent.new
    mkdir -p /opt/hsm-agent.new
    tar -xzf "$file" -C /opt/hsm-agent.new --strip-components=1 || return 22
    rm -rf /opt/hsm-agent
    mv /opt/hsm-agent.new /opt/hsm-agent
    mkdir -p /usr/local/bin
    ln -sf /opt/hsm-agent/hsm-agent /usr/local/bin/hsm-agent
{% endif %}
}

{% if source.kind != "package" %}
retry fetch || case $? in
21) fail checksum-mismatch 21 "$(tail -n 3 "$log")" ;;
22) fail package-not-found 20 "$(tail -n 3 "$log")" ;;
*) fail download-failed 20 "$(tail -n 3 "$log")" ;;
esac
{% endif %}
retry install_agent || case $? in
20) fail package-not-found 20 "$(tail -n 1 "$log")" ;;
*) fail package-failed 22 "$(tail -n 5 "$log")" ;;
esac
