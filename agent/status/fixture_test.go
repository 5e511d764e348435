package status

import (
	"fmt"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// The snapshots of the golden files, taken at a fixed moment.

var testNow = time.Date(2026, 3, 5, 9, 26, 40, 0, time.FixedZone("CST", 8*3600))

func point(name, zh, en, unit string, v drivers.Value, headline bool) Point {
	_, isBool := v.AsBool()
	return Point{
		Name: name, Title: config.Text{ZH: zh, EN: en}, Unit: unit, Value: v, Headline: headline, Bool: isBool,
		At: testNow.Add(-3 * time.Second), Quality: drivers.Good,
	}
}

func testDevice(kind config.DeviceKind, name, label, model, bus string, interval time.Duration, points ...Point) Device {
	if interval < 10*time.Second { // asked more often, read later
		for i := range points {
			points[i].At = testNow.Add(-interval / 2)
		}
	}
	return Device{
		Name: name, Label: label, Kind: kind, Model: model, Bus: bus, IntervalMs: interval.Milliseconds(),
		Polls: 1204, Failures: 2, Points: points,
	}
}

func testBin(n int) Device {
	return testDevice(config.Bin, fmt.Sprintf("bin-%03d", n), fmt.Sprintf("%d号楼 智能垃圾桶", n), "hubagent demonstration bin", "bins", 10*time.Second,
		point("deposits", "投放次数", "deposits", "{count}", drivers.Uint(uint64(980+37*n)), true),
		point("correct", "正确投放", "correct deposits", "{count}", drivers.Uint(uint64(902+34*n)), false),
		point("fill", "满溢度", "fill level", "%", drivers.Uint(uint64(20+7*n)), true),
		point("weight", "重量", "weight", "kg", drivers.Float64(12.5+float64(n)), false),
		point("temperature", "温度", "temperature", "Cel", drivers.Float64(-1.5+float64(n)), false),
		point("voltage", "供电电压", "supply voltage", "V", drivers.Float64(3.61), false),
		point("uptime", "运行时间", "uptime", "s", drivers.Uint(86400*12), false))
}

func testMeter(n int) Device {
	f := float32(n)
	return testDevice(config.Meter, fmt.Sprintf("meter-%03d", n), fmt.Sprintf("%d号楼 总电表", n), "Eastron SDM630-Modbus", "meters", 10*time.Second,
		point("voltage_l1", "A 相电压", "voltage L1", "V", drivers.Float32(230.1+f), false),
		point("voltage_l2", "B 相电压", "voltage L2", "V", drivers.Float32(229.7+f), false),
		point("voltage_l3", "C 相电压", "voltage L3", "V", drivers.Float32(231.4+f), false),
		point("power_active", "有功功率", "active power", "W", drivers.Float32(6156.25+f), true),
		point("power_factor", "功率因数", "power factor", "1", drivers.Float32(0.94), false),
		point("frequency", "频率", "frequency", "Hz", drivers.Float32(50.02), false),
		point("energy_import", "正向有功电能", "energy imported", "kW.h", drivers.Float32(48213.5+f), true))
}

func testCamera(n int) Device {
	return testDevice(config.Camera, fmt.Sprintf("camera-%03d", n), fmt.Sprintf("%d号楼 高空抛物摄像头", n), "Waveshare Modbus RTU IO 8CH", "meters", time.Second,
		point("alarm", "高空抛物报警", "thrown object alarm", "1", drivers.Bool(false), true),
		point("fault", "监控故障", "camera fault", "1", drivers.Bool(false), true))
}

func testLift() Device {
	return testDevice(config.Contact, "lift-001", "1号楼 电梯", "voltage-free fault contact", "contacts", 2*time.Second,
		point("fault", "设施故障", "facility fault", "1", drivers.Bool(false), true))
}

func ahead(ms int64) *int64 { return &ms }

func emptySnapshot() Snapshot {
	return Snapshot{
		Now: testNow, Version: "1.2.3", StartedAt: testNow.Add(-50 * time.Hour), Gateway: "hub-0042", Site: "示范小区",
		Epoch: "20260303T072640Z-5f3a", Clock: "ok", ClockFacts: ClockFacts{Since: testNow.Add(-50 * time.Hour), AheadMs: ahead(-120)},
		Journal: Journal{
			Leaves: 3127, Readings: 1482310, AtRisk: 12, SyncIntervalMs: 2000, LastCommit: testNow.Add(-time.Second),
			DiskUsed: 61_400_000, DiskFree: 1_830_000_000, Quota: 512_000_000, RoomSeconds: 8.64e6,
			Written: 1_312_000_000, WrittenADay: 227_400_000, WriteRatio: 7.12,
		},
		Card: Card{Device: "mmcblk1", Kind: CardEMMC, Model: "AJTD4R", LifeUsed: 20, Reserve: ReserveNormal},
		Uplink: Uplink{
			State: LinkOnline, Broker: "mqtts://platform.example:8883", Since: testNow.Add(-5 * time.Hour), Acknowledged: 3126,
			Waiting: 1, OldestWaiting: testNow.Add(-4 * time.Second), LastAck: testNow.Add(-20 * time.Second), Published: 3130,
			Republished: 4, Connects: 2, Checkpoint: 3120,
		},
	}
}

// goodSnapshot is a hub without any trouble.
func goodSnapshot() Snapshot {
	s := emptySnapshot()
	for n := 1; n <= 8; n++ {
		s.Devices = append(s.Devices, testBin(n))
	}
	for n := 1; n <= 4; n++ {
		s.Devices = append(s.Devices, testMeter(n))
	}
	s.Devices = append(s.Devices, testCamera(1), testCamera(2), testLift())
	s.Buses = []Bus{{"bins", 812.5}, {"meters", 84211.25}, {"contacts", 0.75}}
	return s
}

// silence makes a device dead since some time.
func silence(d *Device, why string, since time.Duration) {
	d.Failing, d.Failures, d.RetryAt = 14, 31, testNow.Add(40*time.Second)
	d.Error = "cannot read input register 0-37 of " + d.Name + ": " + why
	for i := range d.Points {
		d.Points[i].Quality, d.Points[i].Why = drivers.Missing, why
		d.Points[i].At = testNow.Add(-since)
	}
}

// troubledSnapshot is a hub with a dead meter, a bin whose scale is broken, a lift in fault and no way to the platform.
func troubledSnapshot() Snapshot {
	s := goodSnapshot()
	silence(&s.Devices[10], "timeout", 14*time.Minute)
	s.Devices[12].LeftOut = 1503
	fill := &s.Devices[2].Points[2]
	fill.Quality, fill.Why, fill.At = drivers.Missing, "sentinel", testNow.Add(-2*time.Hour)
	weight := &s.Devices[2].Points[3]
	weight.Quality, weight.Why = drivers.Suspect, ""
	s.Devices[14].Points[0].Value = drivers.Bool(true)
	s.Journal.Volatile = true
	s.Card = Card{Device: "mmcblk0", Kind: CardSD, Model: "SC32G", Endurance: 10e12, YearsLeft: 0.4}
	s.Journal.Lost = 1310
	s.Clock, s.ClockFacts = "step", ClockFacts{Since: testNow.Add(-20 * time.Second), JumpedAt: testNow.Add(-20 * time.Second), JumpedByMs: 7 * 86_400_000, AheadMs: ahead(2300)}
	s.Uplink = Uplink{
		State: LinkOffline, Broker: "mqtts://platform.example:8883", Since: testNow.Add(-42 * time.Minute), Acknowledged: 3084,
		Waiting: 43, GivenUp: 12, OldestWaiting: testNow.Add(-43 * time.Minute), LastAck: testNow.Add(-43 * time.Minute), Connects: 2,
		Error: "dial tcp 203.0.113.7:8883: connect: network is unreachable", RetryAt: testNow.Add(95 * time.Second),
	}
	return s
}

// freshSnapshot is a hub in the first second after its start: nothing read, nothing sent, clock not set.
func freshSnapshot() Snapshot {
	s := goodSnapshot()
	s.StartedAt = testNow.Add(-900 * time.Millisecond)
	s.Clock, s.ClockFacts = "unsync", ClockFacts{Since: s.StartedAt, Doubt: "kernel"}
	for i := range s.Devices {
		d := &s.Devices[i]
		d.Polls, d.Failures = 0, 0
		for j, p := range d.Points {
			d.Points[j] = Point{Name: p.Name, Title: p.Title, Unit: p.Unit, Headline: p.Headline, Bool: p.Bool}
		}
	}
	s.Journal = Journal{SyncIntervalMs: 2000, DiskUsed: 1_200_000, DiskFree: 1_890_000_000, Quota: 756_000_000, Written: 3_100_000}
	s.Card = Card{Device: "vda", Kind: CardDisk}
	s.Uplink = Uplink{State: LinkOffline, Broker: "mqtts://platform.example:8883", Since: s.StartedAt}
	return s
}

// largeSnapshot is as much as one gateway is made for: 145 devices of 9 points.
func largeSnapshot() Snapshot {
	s := emptySnapshot()
	for n := range 145 {
		var d Device
		switch {
		case n < 100:
			d = testBin(n + 1)
		case n < 130:
			d = testMeter(n - 99)
		default:
			d = testCamera(n - 129)
		}
		for len(d.Points) < 9 {
			i := len(d.Points)
			d.Points = append(d.Points, point(fmt.Sprintf("extra_%d", i), fmt.Sprintf("附加量 %d", i), fmt.Sprintf("extra %d", i), "A", drivers.Float64(float64(n*977%1000)/10), false))
		}
		for i := range d.Points {
			d.Points[i].At = testNow.Add(-time.Duration(n*311%9000) * time.Millisecond)
			if _, isBool := d.Points[i].Value.AsBool(); !isBool {
				d.Points[i].Value = drivers.Float64(float64((n*7919+i*104729)%99991) / 100)
			}
		}
		s.Devices = append(s.Devices, d)
	}
	return s
}
