package card

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// tree makes a sysfs out of lines: "path: content", or "path -> target" for a symbolic link.
func tree(t *testing.T, lines string) string {
	t.Helper()
	root := t.TempDir()
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		path, target, link := strings.Cut(line, " -> ")
		path, content, file := strings.Cut(path, ": ")
		if line == "" {
			continue
		}
		path = filepath.Join(root, path)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case link:
			err = os.Symlink(target, path)
		case file:
			err = os.WriteFile(path, []byte(content+"\n"), 0o644)
		default:
			err = os.MkdirAll(path, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// A gateway with eMMC, an SD card, a USB disk under LUKS and two disks in a RAID. The SD card is recorded from Debian's arm64
// kernel 6.1 with the card that QEMU plays; the others are laid out as the kernel's drivers do it.
const gateway = `
dev/block/179:0 -> ../../devices/platform/fe330000.mmc/mmc_host/mmc1/mmc1:0001/block/mmcblk1
dev/block/179:2 -> ../../devices/platform/fe330000.mmc/mmc_host/mmc1/mmc1:0001/block/mmcblk1/mmcblk1p2
devices/platform/fe330000.mmc/mmc_host/mmc1/mmc1:0001/type: MMC
devices/platform/fe330000.mmc/mmc_host/mmc1/mmc1:0001/name: AJTD4R
devices/platform/fe330000.mmc/mmc_host/mmc1/mmc1:0001/life_time: 0x01 0x03
devices/platform/fe330000.mmc/mmc_host/mmc1/mmc1:0001/pre_eol_info: 0x01
devices/platform/fe330000.mmc/mmc_host/mmc1/mmc1:0001/block/mmcblk1/device -> ../../../mmc1:0001
devices/platform/fe330000.mmc/mmc_host/mmc1/mmc1:0001/block/mmcblk1/slaves/
devices/platform/fe330000.mmc/mmc_host/mmc1/mmc1:0001/block/mmcblk1/mmcblk1p2/partition: 2
dev/block/179:32 -> ../../devices/platform/4010000000.pcie/pci0000:00/0000:00:01.0/mmc_host/mmc0/mmc0:4567/block/mmcblk0
dev/block/179:33 -> ../../devices/platform/4010000000.pcie/pci0000:00/0000:00:01.0/mmc_host/mmc0/mmc0:4567/block/mmcblk0/mmcblk0p1
devices/platform/4010000000.pcie/pci0000:00/0000:00:01.0/mmc_host/mmc0/mmc0:4567/type: SD
devices/platform/4010000000.pcie/pci0000:00/0000:00:01.0/mmc_host/mmc0/mmc0:4567/name: QEMU!
devices/platform/4010000000.pcie/pci0000:00/0000:00:01.0/mmc_host/mmc0/mmc0:4567/block/mmcblk0/device -> ../../../mmc0:4567
devices/platform/4010000000.pcie/pci0000:00/0000:00:01.0/mmc_host/mmc0/mmc0:4567/block/mmcblk0/slaves/
devices/platform/4010000000.pcie/pci0000:00/0000:00:01.0/mmc_host/mmc0/mmc0:4567/block/mmcblk0/mmcblk0p1/partition: 1
dev/block/254:0 -> ../../devices/virtual/block/dm-0
devices/virtual/block/dm-0/slaves/sda1 -> ../../../../pci0000:00/usb1/host0/block/sda/sda1
devices/pci0000:00/usb1/host0/block/sda/device/model: Flash Disk
devices/pci0000:00/usb1/host0/block/sda/sda1/partition: 1
dev/block/9:0 -> ../../devices/virtual/block/md0
devices/virtual/block/md0/slaves/sda/
devices/virtual/block/md0/slaves/sdb/
dev/block/254:9 -> ../../devices/virtual/block/dm-9
devices/virtual/block/dm-9/slaves/dm-9 -> ../../dm-9
`

func TestRead(t *testing.T) {
	sys := tree(t, gateway)
	for _, c := range []struct {
		major, minor uint32
		want         Card
	}{
		{179, 0, Card{"mmcblk1", EMMC, "AJTD4R", 30, ReserveNormal}},
		{179, 2, Card{"mmcblk1", EMMC, "AJTD4R", 30, ReserveNormal}},
		{179, 33, Card{"mmcblk0", SD, "QEMU!", 0, ""}},
		{254, 0, Card{"sda", Disk, "Flash Disk", 0, ""}},
		{9, 0, Card{"md0", Other, "", 0, ""}},
		{254, 9, Card{"", Other, "", 0, ""}}, // on itself
	} {
		if got, err := Read(sys, c.major, c.minor); err != nil || got != c.want {
			t.Errorf("%d:%d: %+v %v, want %+v", c.major, c.minor, got, err, c.want)
		}
	}
	if _, err := Read(sys, 8, 0); err == nil || !strings.Contains(err.Error(), "block device 8:0") {
		t.Errorf("a device that is not there: %v", err)
	}
}

func TestLifeTime(t *testing.T) {
	for text, want := range map[string]int{
		"0x01 0x01": 10, "0x02 0x00": 20, "0x00 0x00": 0, "0x0a 0x09": 100, "0x0b 0x0b": 110, "0x0c 0xff": 0, "": 0, "x y": 0,
	} {
		if got := lifeUsed(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	for text, want := range map[string]Reserve{"0x00": "", "0x01": ReserveNormal, "0x02": ReserveWarning, "0x03": ReserveUrgent, "0x04": "", "": "", "x": ""} {
		if got := reserve(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestFind(t *testing.T) {
	folder := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		t.Fatal(err)
	}
	c, err := Find(folder, System())
	t.Logf("%+v %v", c, err)
	if err != nil && unix.Major(st.Dev) != 0 {
		if _, missing := os.Stat("/sys/dev/block"); missing == nil {
			t.Error(err)
		}
	}
	if _, err := Find(filepath.Join(folder, "none"), System()); err == nil {
		t.Error("a folder that is not there has a device")
	}
}

func TestMountSource(t *testing.T) {
	mounts := []byte("22 1 0:21 / /proc rw - proc proc rw\n40 1 0:38 /@state /var/lib rw,relatime shared:1 - btrfs /dev/mmcblk0p3 rw,ssd\n41 1 0:39 / / rw - overlay overlay rw\nx\n")
	for device, want := range map[string]string{"0:38": "/dev/mmcblk0p3", "0:39": "", "0:21": "", "0:40": ""} {
		if got := mountSource(mounts, device); got != want {
			t.Errorf("%s: %q, want %q", device, got, want)
		}
	}
}

func TestWritten(t *testing.T) {
	for text, want := range map[string]int64{
		"rchar: 3\nwchar: 9\nsyscr: 1\nsyscw: 1\nread_bytes: 0\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n": 4096,
		"write_bytes: 0\n":                           0,
		"write_bytes: 1\ncancelled_write_bytes: 5\n": 0,
	} {
		if got, err := parseWritten([]byte(text)); err != nil || got != want {
			t.Errorf("%q: %d %v", text, got, err)
		}
	}
	for _, text := range []string{"", "wchar: 5\n", "write_bytes: x\n"} {
		if n, err := parseWritten([]byte(text)); err == nil {
			t.Errorf("%q: %d", text, n)
		}
	}
	if _, err := Written(t.TempDir()); err == nil {
		t.Error("no procfs, and a count")
	}
	// What this process writes and syncs is counted, where the disk is one.
	before, err := Written("/proc")
	if err != nil {
		t.Skip(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	after, err := Written("/proc")
	c, _ := Find(f.Name(), System())
	if err != nil || after-before < 1<<20 && c.Kind != Other {
		t.Errorf("1 MiB written to %+v, %d counted: %v", c, after-before, err)
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add("0x01 0x02", "write_bytes: 5\n", "40 1 0:38 / / rw - btrfs /dev/x rw\n")
	f.Fuzz(func(t *testing.T, life, io, mounts string) {
		if p := lifeUsed(life); p < 0 || p > 110 {
			t.Error(p)
		}
		reserve(life)
		if n, err := parseWritten([]byte(io)); err == nil && n < 0 {
			t.Error(n)
		}
		mountSource([]byte(mounts), "0:38")
	})
}
