// Package card says what is known of the wear of the device that holds a folder: what an eMMC tells of itself, and what this
// process has written.
package card

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is what a device is.
type Kind string

// The kinds of device.
const (
	EMMC  Kind = "emmc"  // soldered flash; since version 5.0 it tells how worn it is
	SD    Kind = "sd"    // an SD card, which does not
	Disk  Kind = "disk"  // any other block device
	Other Kind = "other" // no block device, or more than one, or not known
)

// Reserve is the state of an eMMC's spare blocks, PRE_EOL_INFO of JESD84-B51, 7.4.
type Reserve string

// The states of spare blocks.
const (
	ReserveUnknown Reserve = ""
	ReserveNormal  Reserve = "normal"  // less than 80 % used
	ReserveWarning Reserve = "warning" // 80 % used
	ReserveUrgent  Reserve = "urgent"  // 90 % used
)

// Card is a block device.
type Card struct {
	Device string // name in /sys/block, for example mmcblk0
	Kind   Kind
	Model  string // as it calls itself; may be empty

	// LifeUsed is the upper end of the share of its life that an eMMC says is used, in steps of 10 %: 10 means up to 10 %,
	// 110 that it has gone beyond what it was made for. 0: it does not say.
	LifeUsed int
	Reserve  Reserve
}

// Find looks up the device that holds a folder. roots are where the kernel's file systems are: normally /sys and /proc.
func Find(folder string, roots Roots) (Card, error) {
	var st unix.Stat_t
	if err := unix.Stat(folder, &st); err != nil {
		return Card{Kind: Other}, fmt.Errorf("cannot find the device that holds %s: %w", folder, err)
	}
	major, minor := unix.Major(st.Dev), unix.Minor(st.Dev)
	if major == 0 { // btrfs and overlay number their files on their own
		mounts, err := os.ReadFile(filepath.Join(roots.Proc, "self/mountinfo"))
		if err != nil {
			return Card{Kind: Other}, fmt.Errorf("cannot find the device that holds %s: %w", folder, err)
		}
		source := mountSource(mounts, fmt.Sprintf("%d:%d", major, minor))
		if source == "" {
			return Card{Kind: Other}, nil
		}
		var dev unix.Stat_t
		if err := unix.Stat(source, &dev); err != nil || dev.Mode&unix.S_IFMT != unix.S_IFBLK {
			return Card{Kind: Other}, nil
		}
		major, minor = unix.Major(dev.Rdev), unix.Minor(dev.Rdev)
	}
	return Read(roots.Sys, major, minor)
}

// Roots are where sysfs and procfs are mounted.
type Roots struct{ Sys, Proc string }

// System is the running kernel's.
func System() Roots { return Roots{"/sys", "/proc"} }

// mountSource is the device file that a mount with this device number comes from; empty when it is none.
func mountSource(mountinfo []byte, device string) string {
	for line := range bytes.Lines(mountinfo) {
		before, after, _ := strings.Cut(string(line), " - ")
		field, fsField := strings.Fields(before), strings.Fields(after)
		if len(field) > 2 && field[2] == device && len(fsField) > 1 && strings.HasPrefix(fsField[1], "/dev/") {
			return fsField[1]
		}
	}
	return ""
}

// mostLayers bounds the way from an encrypted or logical volume down to its device.
const mostLayers = 8

// Read says what sysfs, mounted at sys, tells of the block device with this number: of the whole device when it is a
// partition, and of the one below when it is a volume on just one.
func Read(sys string, major, minor uint32) (Card, error) {
	dir, err := filepath.EvalSymlinks(filepath.Join(sys, "dev/block", fmt.Sprintf("%d:%d", major, minor)))
	if err != nil {
		return Card{Kind: Other}, fmt.Errorf("cannot find block device %d:%d: %w", major, minor, err)
	}
	for range mostLayers {
		if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
			dir = filepath.Dir(dir)
		}
		below, err := os.ReadDir(filepath.Join(dir, "slaves"))
		if err != nil || len(below) == 0 {
			return describe(dir), nil
		}
		if len(below) > 1 {
			return Card{Device: filepath.Base(dir), Kind: Other}, nil // several of them: each has a life of its own
		}
		if dir, err = filepath.EvalSymlinks(filepath.Join(dir, "slaves", below[0].Name())); err != nil {
			return Card{Kind: Other}, fmt.Errorf("cannot find the device below %s: %w", filepath.Base(dir), err)
		}
	}
	return Card{Kind: Other}, nil
}

func describe(dir string) Card {
	c := Card{Device: filepath.Base(dir), Kind: Disk, Model: attribute(dir, "device/name")}
	switch attribute(dir, "device/type") {
	case "MMC":
		c.Kind = EMMC
	case "SD":
		c.Kind = SD
	}
	if c.Model == "" {
		c.Model = attribute(dir, "device/model")
	}
	if c.Kind == EMMC {
		c.LifeUsed = lifeUsed(attribute(dir, "device/life_time"))
		c.Reserve = reserve(attribute(dir, "device/pre_eol_info"))
	}
	return c
}

// attribute is the text of a sysfs file; empty when it is not there.
func attribute(dir, name string) string {
	raw, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || len(raw) > 4096 {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// lifeUsed reads life_time: DEVICE_LIFE_TIME_EST_TYP_A and _B, for the two kinds of flash that an eMMC may have. The worse
// counts. 0x01 is 0 to 10 %, 0x0a is 90 to 100 %, 0x0b beyond; 0x00 and what is not defined count as not told.
func lifeUsed(text string) (percent int) {
	for _, field := range strings.Fields(text) {
		n, err := strconv.ParseUint(field, 0, 8)
		if err == nil && n >= 1 && n <= 0x0b {
			percent = max(percent, int(n)*10)
		}
	}
	return percent
}

func reserve(text string) Reserve {
	n, err := strconv.ParseUint(text, 0, 8)
	if err != nil {
		return ReserveUnknown
	}
	switch n {
	case 1:
		return ReserveNormal
	case 2:
		return ReserveWarning
	case 3:
		return ReserveUrgent
	}
	return ReserveUnknown
}

// Written is how many bytes the kernel counts this process to have written to disks since it was started, without the
// file systems' own records. An error means that the kernel does not count (CONFIG_TASK_IO_ACCOUNTING).
func Written(proc string) (int64, error) {
	raw, err := os.ReadFile(filepath.Join(proc, "self/io"))
	if err != nil {
		return 0, fmt.Errorf("cannot read how much was written: %w", err)
	}
	return parseWritten(raw)
}

// parseWritten takes write_bytes of proc_pid_io(5), without cancelled_write_bytes: what was deleted before it came to the
// disk.
func parseWritten(raw []byte) (int64, error) {
	count := map[string]int64{}
	for line := range bytes.Lines(raw) {
		name, text, _ := strings.Cut(string(line), ":")
		if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
			count[name] = n
		}
	}
	n, ok := count["write_bytes"]
	if !ok {
		return 0, errors.New("cannot read how much was written: no write_bytes")
	}
	return max(0, n-count["cancelled_write_bytes"]), nil
}
