package scan

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Port is a serial port of this machine.
type Port struct {
	Name   string `json:"name"`             // the most stable name there is: what belongs in hub.yaml
	Device string `json:"device"`           // the device file it stands for now
	Holder string `json:"holder,omitempty"` // the program that has it locked: "hubagent (process 812)"
}

// Ports lists the serial ports, each once. root is "/" but for tests.
//
// Names under by-id stay the same wherever an adapter is plugged in. Cheap adapters have no serial number: of two alike
// only one has its name there, and the other is known by by-path, the socket it is plugged in.
func Ports(root string) ([]Port, error) {
	var ports []Port
	add := func(name string) {
		device, err := filepath.EvalSymlinks(name)
		if err == nil && !slices.ContainsFunc(ports, func(p Port) bool { return p.Device == device }) {
			ports = append(ports, Port{Name: name, Device: device, Holder: Holder(root, device)})
		}
	}
	for _, pattern := range []string{"dev/serial/by-id/*", "dev/serial/by-path/*", "dev/ttyUSB*", "dev/ttyACM*", "dev/ttyAMA*", "dev/ttyS*", "dev/ttymxc*"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if !absent(root, filepath.Base(name)) {
				add(name)
			}
		}
	}
	return ports, nil
}

// absent says that the kernel made a port's file for hardware that might have been there, as it does for ttyS0 to ttyS31.
// Its UART is of type 0, unknown, then.
func absent(root, tty string) bool {
	kind, err := os.ReadFile(filepath.Join(root, "sys/class/tty", tty, "type"))
	return err == nil && strings.TrimSpace(string(kind)) == "0"
}

// Holder names the program that has a file locked, as /proc/locks knows it; "" if there is none, or it cannot be told.
func Holder(root, path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	id := fmt.Sprintf("%02x:%02x:%d", unix.Major(uint64(st.Dev)), unix.Minor(uint64(st.Dev)), st.Ino)
	f, err := os.Open(filepath.Join(root, "proc/locks"))
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// "3: FLOCK  ADVISORY  WRITE 812 00:05:1037 0 EOF"; before a waiting one stands an arrow
		field := strings.Fields(lines.Text())
		if len(field) < 6 || field[1] != "FLOCK" || field[5] != id {
			continue
		}
		pid, err := strconv.Atoi(field[4])
		if err != nil || pid <= 0 { // of another container
			return ""
		}
		name, err := os.ReadFile(filepath.Join(root, "proc", field[4], "comm"))
		if err != nil {
			return fmt.Sprintf("process %d", pid)
		}
		return fmt.Sprintf("%s (process %d)", strings.TrimSpace(string(name)), pid)
	}
	return ""
}
