package status

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"hubagent/drivers"
)

// text is a sentence as it is read.
func (s sentence) text(l *language) string {
	var names []string
	for _, n := range s.Names {
		names = append(names, n.Label+n.Note)
	}
	return fmt.Sprintf("%s: %s%s%s", s.Level, s.Before, strings.Join(names, l.Say("state.separator")), s.After)
}

func TestStateInWords(t *testing.T) {
	offline := func(s *Snapshot, waiting int64) {
		s.Uplink.State, s.Uplink.Since, s.Uplink.Error = LinkOffline, testNow.Add(-3*time.Minute), "refused"
		s.Uplink.Waiting, s.Uplink.OldestWaiting = waiting, testNow.Add(-4*time.Minute)
	}
	for _, c := range []struct {
		name   string
		change func(s *Snapshot)
		zh, en string
	}{
		{"all good", func(*Snapshot) {},
			"good: 15 台设备全部正常。\ngood: 20 秒前已确认送达。",
			"good: All 15 devices report.\ngood: Platform confirmed 20 s ago."},
		{"one device", func(s *Snapshot) { s.Devices = s.Devices[:1] },
			"good: 设备正常。\ngood: 20 秒前已确认送达。",
			"good: The device reports.\ngood: Platform confirmed 20 s ago."},
		{"no devices", func(s *Snapshot) { s.Devices = nil },
			"wait: 还没有配置设备。\ngood: 20 秒前已确认送达。",
			"wait: No devices are configured yet.\ngood: Platform confirmed 20 s ago."},
		{"one lost answer is noise", func(s *Snapshot) { s.Devices[0].Failing = 1 },
			"good: 15 台设备全部正常。\ngood: 20 秒前已确认送达。",
			"good: All 15 devices report.\ngood: Platform confirmed 20 s ago."},
		{"one silent", func(s *Snapshot) { silence(&s.Devices[10], "crc", 14*time.Minute) },
			"bad: 收不到 3号楼 总电表（09:12 起）的读数。\ngood: 其余 14 台设备正常。\ngood: 20 秒前已确认送达。",
			"bad: No readings from 3号楼 总电表 (since 09:12).\ngood: The other 14 devices report.\ngood: Platform confirmed 20 s ago."},
		{"silent since yesterday", func(s *Snapshot) { silence(&s.Devices[10], "crc", 24*time.Hour) },
			"bad: 收不到 3号楼 总电表（3月4日 09:26 起）的读数。\ngood: 其余 14 台设备正常。\ngood: 20 秒前已确认送达。",
			"bad: No readings from 3号楼 总电表 (since 4 Mar 09:26).\ngood: The other 14 devices report.\ngood: Platform confirmed 20 s ago."},
		{"silent without an error", func(s *Snapshot) {
			for i := range s.Devices[14].Points {
				s.Devices[14].Points[i].At = testNow.Add(-6 * time.Second)
			}
		},
			"bad: 收不到 1号楼 电梯（09:26 起）的读数。\ngood: 其余 14 台设备正常。\ngood: 20 秒前已确认送达。",
			"bad: No readings from 1号楼 电梯 (since 09:26).\ngood: The other 14 devices report.\ngood: Platform confirmed 20 s ago."},
		{"many silent", func(s *Snapshot) {
			for i := range 5 {
				silence(&s.Devices[i], "link", time.Hour)
			}
		},
			"bad: 收不到 1号楼 智能垃圾桶（08:26 起）、2号楼 智能垃圾桶（08:26 起）、3号楼 智能垃圾桶（08:26 起） 等另外 2 台的读数。\ngood: 其余 10 台设备正常。\ngood: 20 秒前已确认送达。",
			"bad: No readings from 1号楼 智能垃圾桶 (since 08:26), 2号楼 智能垃圾桶 (since 08:26), 3号楼 智能垃圾桶 (since 08:26) and 2 more.\ngood: The other 10 devices report.\ngood: Platform confirmed 20 s ago."},
		{"all silent", func(s *Snapshot) {
			for i := range s.Devices {
				silence(&s.Devices[i], "link", time.Hour)
			}
		},
			"bad: 收不到任何设备的读数。请检查网关与设备之间的线路和电源。\ngood: 20 秒前已确认送达。",
			"bad: No readings from any device. Check the power and the lines between gateway and devices.\ngood: Platform confirmed 20 s ago."},
		{"offline with backlog", func(s *Snapshot) { offline(s, 4) },
			"warn: 与平台断开已 3 分钟。4 批读数待上传，最早的是 09:22 的，都保存在网关里，恢复后自动补传。\ngood: 15 台设备全部正常。",
			"warn: No connection to the platform for 3 min. 4 batches of readings wait to be sent, the oldest from 09:22. They are kept here and go out by themselves afterwards.\ngood: All 15 devices report."},
		{"offline, nothing waits", func(s *Snapshot) { offline(s, 0) },
			"warn: 与平台断开已 3 分钟。读数照常保存在网关里，恢复后自动上传。\ngood: 15 台设备全部正常。",
			"warn: No connection to the platform for 3 min. Readings are kept here and go out by themselves afterwards.\ngood: All 15 devices report."},
		{"platform silent", func(s *Snapshot) {
			offline(s, 1)
			s.Uplink.State = LinkSilent
		},
			"warn: 服务器已连上，但平台 3 分钟没有确认收到。1 批读数待上传，最早的是 09:22 的，都保存在网关里，恢复后自动补传。\ngood: 15 台设备全部正常。",
			"warn: Connected to the broker, but the platform has confirmed nothing for 3 min. 1 batch of readings, from 09:22, waits to be sent. It is kept here and goes out by itself afterwards.\ngood: All 15 devices report."},
		{"just connected", func(s *Snapshot) { s.Uplink.State, s.Uplink.Since = LinkSilent, testNow.Add(-time.Second) },
			"wait: 已连上服务器，正在等平台确认。\ngood: 15 台设备全部正常。",
			"wait: Connected; waiting for the platform to confirm.\ngood: All 15 devices report."},
		{"catching up", func(s *Snapshot) { s.Uplink.Waiting, s.Uplink.OldestWaiting = 12345, testNow.Add(-3*time.Hour) },
			"good: 15 台设备全部正常。\ngood: 正在补传：还有 12,345 批读数，最早的是 06:26 的。",
			"good: All 15 devices report.\ngood: Catching up: 12,345 batches of readings are left, the oldest from 06:26."},
		{"no platform", func(s *Snapshot) { s.Uplink = Uplink{State: LinkOff} },
			"good: 15 台设备全部正常。\ngood: 没有配置平台，读数只保存在网关里。",
			"good: All 15 devices report.\ngood: No platform is configured: readings are kept on this gateway only."},
		{"suspect reading", func(s *Snapshot) { s.Devices[0].Points[3].Quality = drivers.Suspect },
			"warn: 请留意：1号楼 智能垃圾桶 有读数存疑。\ngood: 其余 14 台设备正常。\ngood: 20 秒前已确认送达。",
			"warn: Attention: 1号楼 智能垃圾桶 has suspect readings.\ngood: The other 14 devices report.\ngood: Platform confirmed 20 s ago."},
		{"lift in fault", func(s *Snapshot) { s.Devices[14].Points[0].Value = drivers.Bool(true) },
			"warn: 请留意：1号楼 电梯 故障。\ngood: 其余 14 台设备正常。\ngood: 20 秒前已确认送达。",
			"warn: Attention: 1号楼 电梯: fault.\ngood: The other 14 devices report.\ngood: Platform confirmed 20 s ago."},
		{"clock not set, one silent", func(s *Snapshot) {
			s.Clock = "unsync"
			silence(&s.Devices[0], "timeout", 14*time.Minute)
		},
			"bad: 收不到 1号楼 智能垃圾桶（已 14 分钟）的读数。\nwarn: 网关时钟未校准，读数时间要等校准后才能修正。请为网关设置校时服务器。\ngood: 其余 14 台设备正常。\ngood: 20 秒前已确认送达。",
			"bad: No readings from 1号楼 智能垃圾桶 (for 14 min).\nwarn: The gateway's clock is not set: times of readings are put right once it is. Give it a time server.\ngood: The other 14 devices report.\ngood: Platform confirmed 20 s ago."},
		{"clock jumped", func(s *Snapshot) { s.Clock, s.ClockFacts.JumpedByMs = "step", -3_600_000 },
			"wait: 网关时钟刚被调慢 1 小时。\ngood: 15 台设备全部正常。\ngood: 20 秒前已确认送达。",
			"wait: The gateway's clock was just set 1 h back.\ngood: All 15 devices report.\ngood: Platform confirmed 20 s ago."},
		{"clock far from the platform's", func(s *Snapshot) {
			s.Clock, s.ClockFacts.Doubt, s.ClockFacts.AheadMs = "unsync", "platform", ahead(3*86_400_000)
		},
			"warn: 网关时钟比平台快 3 天，不可信。请检查校时服务器。\ngood: 15 台设备全部正常。\ngood: 20 秒前已确认送达。",
			"warn: The gateway's clock is 3 days ahead compared with the platform's: it is not believed. Check the time server.\ngood: All 15 devices report.\ngood: Platform confirmed 20 s ago."},
		{"clock in the past", func(s *Snapshot) { s.Clock, s.ClockFacts.Doubt = "unsync", "past" },
			"warn: 网关时钟是 2026-03-05 09:26，不可能这么早，不可信。请检查校时服务器和时钟电池。\ngood: 15 台设备全部正常。\ngood: 20 秒前已确认送达。",
			"warn: The gateway's clock says 2026-03-05 09:26, earlier than it can be: it is not believed. Check the time server and the clock's battery.\ngood: All 15 devices report.\ngood: Platform confirmed 20 s ago."},
		{"disk full, memory holds", func(s *Snapshot) { s.Journal.Error, s.Journal.AtRisk = "only 2 MB are free", 52_300 },
			"warn: 数据日志无法写入，52,300 条读数暂存在内存里，还没有丢失。请尽快清理磁盘空间。\ngood: 15 台设备全部正常。\ngood: 20 秒前已确认送达。",
			"warn: The journal cannot be written: 52,300 readings wait in memory, none is lost yet. Free space on the disk soon.\ngood: All 15 devices report.\ngood: Platform confirmed 20 s ago."},
		{"waiting leaves of a boot whose clock was never set", func(s *Snapshot) {
			offline(s, 4)
			s.Uplink.OldestWaiting = time.Time{}
		},
			"warn: 与平台断开已 3 分钟。4 批读数待上传，都保存在网关里，恢复后自动补传。\ngood: 15 台设备全部正常。",
			"warn: No connection to the platform for 3 min. 4 batches of readings wait to be sent. They are kept here and go out by themselves afterwards.\ngood: All 15 devices report."},
		{"everything at once", func(s *Snapshot) {
			*s = troubledSnapshot()
			s.Journal.Error, s.Journal.Lost, s.Clock = "disk full", 42_000, "unsync"
		},
			"bad: 数据日志无法写入，内存也已放满：丢失了 42,000 条较早的读数。请马上清理磁盘空间，或联系安装人员。\n" +
				"bad: 收不到 3号楼 总电表（已 14 分钟）的读数。\n" +
				"bad: 数据日志已满：有 12 批读数在送达平台之前就被舍弃。请尽快修好网络，或联系安装人员。\n" +
				"warn: 数据日志放在内存里，一断电，平台还没收到的读数就会全部丢失。请把状态目录放到磁盘上。\n" +
				"warn: 网关的存储快到寿命了，请在损坏之前更换。\n" +
				"warn: 请留意：1号楼 电梯 故障。\n" +
				"warn: 与平台断开已 42 分钟。43 批读数待上传，最早的是 08:43 的，都保存在网关里，恢复后自动补传。\n" +
				"warn: 请留意：3号楼 智能垃圾桶 有读数存疑。\n" +
				"warn: 网关时钟未校准，读数时间要等校准后才能修正。请为网关设置校时服务器。\n" +
				"good: 其余 12 台设备正常。",
			""},
		{"fresh start", func(s *Snapshot) {
			*s = freshSnapshot()
			s.Clock = "ok"
		},
			"wait: 正在首次读取设备：已读到 0 台，共 15 台。\nwait: 正在连接平台。",
			"wait: Reading the devices for the first time: 0 of 15 so far.\nwait: Connecting to the platform."},
		{"never answered", func(s *Snapshot) {
			*s = freshSnapshot()
			s.Clock, s.Devices = "ok", s.Devices[:2]
			s.Devices[1].Polls, s.Devices[1].Failing = 1, 1
		},
			"bad: 收不到 2号楼 智能垃圾桶（09:26 起）的读数。\nwait: 正在首次读取设备：已读到 0 台，共 2 台。\nwait: 正在连接平台。",
			"bad: No readings from 2号楼 智能垃圾桶 (since 09:26).\nwait: Reading the devices for the first time: 0 of 2 so far.\nwait: Connecting to the platform."},
	} {
		s := goodSnapshot()
		c.change(&s)
		for i, l := range languages() {
			want := []string{c.zh, c.en}[i]
			var got []string
			var devices []device
			for _, d := range s.Devices {
				devices = append(devices, l.device(s, d))
			}
			for _, sentence := range l.sentences(s, devices) {
				got = append(got, sentence.text(l))
			}
			if text := strings.Join(got, "\n"); want != "" && text != want {
				t.Errorf("%s, %s: got\n%s\nwant\n%s", c.name, l.Code, text, want)
			}
		}
	}
}

func TestReasons(t *testing.T) {
	for code, want := range map[string][2]string{
		"timeout":     {"设备没有应答", "检查设备的电源、接线和站号。"},
		"crc":         {"线路干扰，或波特率、校验位不对", "检查屏蔽、终端电阻和串口参数。"},
		"exception 2": {"设备不认识这个地址", "核对配置里的设备型号。"},
		"exception 7": {"原因代码 exception 7", "核对配置里的设备型号。"},
		"brand new":   {"原因代码 brand new", "请联系安装人员。"},
	} {
		zh := languages()[0]
		s := goodSnapshot()
		silence(&s.Devices[0], code, time.Hour)
		if d := zh.device(s, s.Devices[0]); d.Why != want[0] || d.Mend != want[1] || d.Level() != bad {
			t.Errorf("%s: %q %q", code, d.Why, d.Mend)
		}
	}
}
