package sim

import (
	"fmt"
	"time"

	"hubagent/config"
)

// Demo is the site of the demo: 8 bins on a Modbus TCP server at tcpAddress, 4 meters and 2 cameras on the 9600 Bd
// line at rtuPort, and a lift's fault relay on line 17 in lineDir. Unit ids differ over the whole site, so that a
// Fault's Units name devices. Profiles must have hub-bin, eastron-sdm630, waveshare-io-8ch-camera and
// facility-contact, as those that come with the agent do.
func Demo(profiles map[string]*config.Profile, tcpAddress, rtuPort, lineDir string) []config.Bus {
	device := func(name, label, profile string, unit int, interval time.Duration) config.Device {
		model := profiles[profile]
		if model == nil {
			panic("BUG: no profile " + profile)
		}
		return config.Device{Name: name, Label: label, Profile: profile, Unit: unit, Interval: interval, Model: model}
	}
	const timeout = 500 * time.Millisecond
	bins := config.Bus{Name: "bins", Kind: config.ModbusTCP, Address: tcpAddress, Timeout: timeout}
	for n := 1; n <= 8; n++ {
		bins.Devices = append(bins.Devices,
			device(fmt.Sprintf("bin-%03d", n), fmt.Sprintf("%d号楼 智能垃圾桶", n), "hub-bin", n, 2*time.Second))
	}
	// One poll of an SDM630 takes about 0.75 s at 9600 Bd: three requests, each after the 100 ms of silence it needs, and
	// 200 ms for the change of unit. So four meters fill 60 % of a line at this interval, and would not fit at 2 s.
	const meterInterval = 5 * time.Second
	meters := config.Bus{
		Name: "meters", Kind: config.ModbusRTU, Port: rtuPort, Timeout: timeout,
		Baud: 9600, Parity: config.ParityNone, StopBits: 1,
	}
	for n := 1; n <= 4; n++ {
		meters.Devices = append(meters.Devices,
			device(fmt.Sprintf("meter-%03d", n), fmt.Sprintf("%d号楼 总电表", n), "eastron-sdm630", 10+n, meterInterval))
	}
	for n := 1; n <= 2; n++ {
		meters.Devices = append(meters.Devices,
			device(fmt.Sprintf("camera-%03d", n), fmt.Sprintf("%d号楼 高空抛物摄像头", n), "waveshare-io-8ch-camera", 20+n, time.Second))
	}
	lift := device("lift-001", "1号楼 电梯", "facility-contact", 0, time.Second)
	lift.Line = 17
	contacts := config.Bus{Name: "contacts", Kind: config.GPIOSim, Dir: lineDir, Timeout: timeout, Devices: []config.Device{lift}}
	return []config.Bus{bins, meters, contacts}
}
