package status

import (
	"strings"

	"hubagent/config"
)

// unitSign is a UCUM unit as people write it. Units that only count are not written at all: the title says what.
func unitSign(ucum string) string {
	if before, rest, ok := strings.Cut(ucum, "{"); ok { // an annotation, as in {count} or kW.h{total}
		_, after, _ := strings.Cut(rest, "}")
		ucum = before + after
	}
	switch ucum {
	case "1":
		return ""
	case "Cel":
		return "°C"
	case "Ohm":
		return "Ω"
	case "deg":
		return "°"
	case "m2":
		return "m²"
	case "m3":
		return "m³"
	case "m3/h":
		return "m³/h"
	}
	return strings.ReplaceAll(ucum, ".", "") // kW.h, V.A: UCUM's product
}

// grouped is a decimal number with commas between thousands from five digits up. Its digits stay those measured.
func grouped(number string) string {
	sign := ""
	if strings.HasPrefix(number, "-") {
		sign, number = "-", number[1:]
	}
	whole, fraction, _ := strings.Cut(number, ".")
	if len(whole) < 5 || strings.ContainsAny(number, "eE") {
		return sign + number
	}
	var b strings.Builder
	b.WriteString(sign)
	for i, digit := range whole {
		if i > 0 && (len(whole)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(digit)
	}
	if fraction != "" {
		b.WriteString("." + fraction)
	}
	return b.String()
}

// stateWord is the state of a contact in words chosen by the point's title, and whether it is one that somebody
// should look after.
func (l *language) stateWord(title config.Text, active bool) (word string, alert bool) {
	state := "off"
	if active {
		state = "on"
	}
	for _, m := range []struct {
		zh, en string // found in the title
		family string // of words
		alert  string // the state to look after
	}{
		{"故障", "fault", "fault", "on"},
		{"报警", "alarm", "alarm", "on"},
		{"正常", "normal", "normal", "off"},
		{"在线", "online", "online", "off"},
		{"运行", "running", "running", ""},
		{"门", "door", "door", ""},
	} {
		if strings.Contains(title.ZH, m.zh) || strings.Contains(strings.ToLower(title.EN), m.en) {
			return l.Say("bool." + m.family + "." + state), state == m.alert
		}
	}
	return l.Say("bool.active." + state), false
}
