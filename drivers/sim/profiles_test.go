package sim

import (
	"slices"
	"testing"
	"time"

	"hubagent/config"
)

// Every profile that comes with the agent can be simulated: at any time its values fit their registers and are none
// of those that mean "no value". Those of the demo have no point whose meaning World does not know.
func TestShippedProfiles(t *testing.T) {
	shipped, err := config.Profiles()
	if err != nil {
		t.Fatal(err)
	}
	byID := map[string]*config.Profile{}
	for _, profile := range shipped {
		byID[profile.ID] = profile
		t.Run(profile.ID, func(t *testing.T) {
			d := config.Device{Name: "device-001", Model: profile}
			for n := range 500 {
				at := start.Add(time.Duration(n) * time.Minute)
				for _, p := range profile.Points {
					if p.Function == config.Line {
						continue // has no register
					}
					registers, err := demoWorld().registers(d, p, at)
					if err != nil {
						t.Fatal(err)
					}
					var raw uint64
					for _, r := range registers {
						raw = raw<<16 | uint64(r)
					}
					if slices.Contains(p.Missing, int64(raw)) {
						t.Fatalf("%s is %#x, which means no value", p.Name, raw)
					}
				}
			}
		})
	}
	for _, bus := range Demo(byID, "127.0.0.1:502", "/dev/null", "") {
		for _, d := range bus.Devices {
			for _, p := range d.Model.Points {
				if _, known := demoWorld().known(d, p, start); !known {
					t.Errorf("%s of %s is only a wave", p.Name, d.Profile)
				}
			}
		}
	}
}
