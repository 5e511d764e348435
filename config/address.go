package config

import (
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

var hostForm = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9._-]{0,251}[A-Za-z0-9_.])?$`)

// address completes host:port with a default port. It notes a problem and returns "" when the text is neither.
func (d *document) address(path, text, defaultPort string, leastPort int) string {
	mend := "write host:port, for example 192.168.1.10:" + defaultPort
	host, port, err := net.SplitHostPort(text)
	switch {
	case err == nil:
	case strings.Count(text, ":") > 1 && !strings.Contains(text, "]"):
		d.report(path, quote(text)+" has more than one colon", "put an IPv6 address in brackets: [fe80::1]:"+defaultPort)
		return ""
	case strings.Contains(text, ":") && !strings.HasSuffix(text, "]"):
		d.report(path, quote(text)+" is not an address", mend)
		return ""
	default:
		host, port = strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"), defaultPort
	}
	if !isHost(host) {
		d.report(path, quote(host)+" is not a host", mend)
		return ""
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < leastPort || n > 65535 || strconv.Itoa(n) != port {
		d.report(path, quote(port)+" is not a port", fmt.Sprintf("write a port from %d to 65535 behind the colon", leastPort))
		return ""
	}
	return net.JoinHostPort(host, port)
}

// isHost says whether a text is an IP address or a name. 192.168.1.300 is neither.
func isHost(host string) bool {
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return hostForm.MatchString(host) && strings.Trim(host, "0123456789.") != ""
}

// isLoopback says whether host:port never leaves this machine.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// listen checks where the page is served. Every interface is served only when the file says so in plain figures.
func (v *validation) listen(path, text string) string {
	if text == "off" {
		return ""
	}
	if strings.HasPrefix(text, ":") {
		v.report(path, quote(text)+" names no address", "write 127.0.0.1:8080 for this machine only, or 0.0.0.0:8080 to open the page to the network")
		return ""
	}
	return v.address(path, text, "8080", 0)
}

// broker completes a broker's URL with its port. What stands before an @ is never quoted: it may be a password.
func (v *validation) broker(path, text string, allowPlaintext bool) string {
	const mend = "write mqtt://host:port or mqtts://host:port"
	scheme, rest, ok := strings.Cut(text, "://")
	port := map[string]string{"mqtt": "1883", "mqtts": "8883"}[scheme]
	if strings.Contains(text, "@") {
		v.report(path, "has a user or password in it", mend+": secrets do not belong in this file")
		return ""
	}
	if !ok {
		v.report(path, quote(text)+" is not a URL", mend)
		return ""
	}
	if port == "" {
		v.report(path, quote(scheme)+" is not a scheme for brokers", mend)
		return ""
	}
	rest = strings.TrimSuffix(rest, "/")
	if strings.ContainsAny(rest, "/?#") {
		v.report(path, quote(text)+" has something behind the port", mend)
		return ""
	}
	address := v.address(path, rest, port, 1)
	if address == "" {
		return ""
	}
	if scheme == "mqtt" && !allowPlaintext && !isLoopback(address) {
		v.report(path, "mqtt:// to another machine sends everything in plain text", "write mqtts://, or set allow_plaintext: true under uplink if the network is trusted")
	}
	return scheme + "://" + address
}
