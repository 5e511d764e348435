package sim

import (
	"strings"
	"time"

	"hubagent/config"
)

// contact gives the states of cameras, facilities and anything else, each with events of its own now and then: a
// camera's alarm closes for five seconds, and a facility's fault relay lets go for four to eight, as more rarely does a
// camera's. A state whose name says that all is well is active but for then.
func (w World) contact(d config.Device, p config.Point, t time.Time) float64 {
	perDay, length := 10, time.Duration(w.between(d.Name, p.Name, 4, 8)*float64(time.Second))
	if d.Model.Kind == config.Camera {
		if p.Name == "fault" {
			perDay = 2
		} else {
			perDay, length = 20, 5*time.Second
		}
	}
	if w.pulse(d.Name, p.Name, perDay, length, t) != saysWell(p.Name) {
		return 1
	}
	return 0
}

// saysWell tells a state like running or power_ok, active when all is well, from one like alarm or fault.
func saysWell(point string) bool {
	for _, word := range strings.Split(point, "_") {
		switch word {
		case "ok", "healthy", "normal", "running", "online", "ready":
			return true
		}
	}
	return false
}
