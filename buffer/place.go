package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What a journal needs of its file system: that a sync reaches the medium and what was synced stays in order, that a file
// can be mapped shared and locked, and that modes keep keys from others. The numbers are those of statfs(2) and of the
// kernel's uapi/linux/magic.h, and exfat's, ntfs3's and CephFS's own.
const (
	good   = iota
	mapped // good as far as known; whether it maps and locks is tried
	memory
	overlay
	network
	modeless
	foreign
)

var fileSystems = map[int64]struct {
	name string
	kind int
}{
	unix.EXT4_SUPER_MAGIC: {"ext4", good}, // ext2 and ext3 have the same number
	unix.F2FS_SUPER_MAGIC: {"f2fs", good}, unix.XFS_SUPER_MAGIC: {"xfs", good}, unix.BTRFS_SUPER_MAGIC: {"btrfs", good},
	unix.TMPFS_MAGIC: {"tmpfs", memory}, unix.RAMFS_MAGIC: {"ramfs", memory},
	unix.OVERLAYFS_SUPER_MAGIC: {"overlay", overlay},
	unix.MSDOS_SUPER_MAGIC:     {"FAT", modeless}, unix.EXFAT_SUPER_MAGIC: {"exFAT", modeless},
	0x5346544e: {"NTFS", modeless}, 0x7366746e: {"NTFS", modeless},
	unix.NFS_SUPER_MAGIC: {"NFS", network}, unix.SMB_SUPER_MAGIC: {"SMB", network}, unix.CIFS_SUPER_MAGIC: {"SMB", network},
	unix.SMB2_SUPER_MAGIC: {"SMB", network}, unix.V9FS_MAGIC: {"9p", network}, unix.AFS_SUPER_MAGIC: {"AFS", network},
	unix.AFS_FS_MAGIC: {"AFS", network}, unix.CODA_SUPER_MAGIC: {"Coda", network}, unix.NCP_SUPER_MAGIC: {"NCP", network},
	0x00c36400:            {"CephFS", network},
	unix.FUSE_SUPER_MAGIC: {"FUSE", foreign}, // ntfs-3g, sshfs and others
}

// A Place is what CheckPlace found out about a folder.
type Place struct {
	FileSystem string // its name, or its number where that is not known
	Volatile   bool   // it is in memory: nothing in it survives a power cut
	// EagerTimes says that it writes the time of a file's last change down whenever the file is written, which costs a turn
	// of its journal every few seconds, as much as the readings themselves. Mounted with lazytime it does not.
	EagerTimes bool
}

// CheckPlace says whether a journal can be kept in dir, which need not exist yet: the error names the folder, what is wrong
// with its file system, and the mend. A folder in memory is no error: it is good enough to try things.
func CheckPlace(dir string) (Place, error) {
	at := existing(dir)
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return Place{}, fmt.Errorf("cannot use folder %s: %w", dir, err)
	}
	place, kind, err := judge(dir, st)
	if err != nil {
		return place, err
	}
	if err := unix.Faccessat(unix.AT_FDCWD, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		user := os.Geteuid()
		mend := fmt.Sprintf("chown %d %s", user, at)
		if rest, ok := strings.CutPrefix(dir, strings.TrimSuffix(at, "/")+"/"); ok {
			first, _, _ := strings.Cut(rest, "/")
			mend = fmt.Sprintf("install -d -o %d -m 0700 %s", user, filepath.Join(at, first))
		}
		return place, fmt.Errorf("cannot write to folder %s: %w at %s for user number %d: as root, %s", dir, err, at, user, mend)
	}
	if free := int64(st.Bavail)*int64(st.Bsize) + ballast(dir); st.Blocks > 0 && free < openBytes+redoBytes {
		return place, fmt.Errorf("cannot open a journal in %s: only %d MB are free on its file system, and it takes %d MB: make space there", dir, free/1e6, int64(openBytes+redoBytes)/1e6)
	}
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		place.Volatile = place.Volatile || kind == overlay && volatileUpper(mounts, at)
		place.EagerTimes = eagerTimes(mounts, at)
	}
	if kind == mapped || kind == overlay {
		f, err := os.CreateTemp(at, ".try-*")
		if err != nil {
			return place, fmt.Errorf("cannot write to folder %s: %w", dir, err)
		}
		defer os.Remove(f.Name())
		defer f.Close()
		if err := tryMap(f); err != nil {
			return place, fmt.Errorf("cannot keep a journal in %s: its file system (%s) cannot map or lock files: %w; use a folder on ext4 or f2fs", dir, place.FileSystem, err)
		}
	}
	return place, nil
}

// judge is CheckPlace as far as statfs tells.
func judge(dir string, st unix.Statfs_t) (place Place, kind int, err error) {
	known, ok := fileSystems[int64(uint32(st.Type))]
	if !ok {
		known.name, known.kind = fmt.Sprintf("type 0x%x", uint32(st.Type)), mapped
	}
	place = Place{FileSystem: known.name, Volatile: known.kind == memory}
	const mend = "use a folder on ext4 or f2fs, on a disk of the gateway"
	switch {
	case st.Flags&unix.ST_RDONLY != 0:
		err = fmt.Errorf("cannot write to folder %s: its file system is read-only: mount it writable; if the kernel made it so after errors (dmesg says), check it with fsck first", dir)
	case known.kind == network:
		err = fmt.Errorf("cannot keep a journal in %s: it is on a network file system (%s), where a power cut or a lost link can undo what was synced: %s", dir, known.name, mend)
	case known.kind == modeless:
		err = fmt.Errorf("cannot keep a journal in %s: its file system (%s) keeps no order of writes over a power cut and no modes for keys: %s", dir, known.name, mend)
	case known.kind == foreign:
		err = fmt.Errorf("cannot keep a journal in %s: its file system (FUSE) is a program, and whether a sync reaches the disk is not known: %s", dir, mend)
	case st.Files > 0 && st.Ffree == 0:
		err = fmt.Errorf("cannot write to folder %s: its file system has no inode left: remove files there, small ones count as much as large ones", dir)
	}
	return place, known.kind, err
}

// existing is the folder itself, or the nearest one above it that there is.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// volatileUpper says whether what is written to the overlay that holds a path goes to memory: its upper folder is in
// tmpfs, as with overlayroot and live systems, or the overlay is mounted to ignore syncs. An upper folder that cannot be
// seen from here, as in a container, is taken to be on a disk.
func volatileUpper(mountinfo []byte, path string) bool {
	kind, options := mountOptions(mountinfo, path)
	if kind != "overlay" {
		return false
	}
	for option := range strings.SplitSeq(options, ",") {
		if option == "volatile" {
			return true
		}
		if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
			var st unix.Statfs_t
			if unix.Statfs(unescape(upper), &st) == nil && fileSystems[int64(uint32(st.Type))].kind == memory {
				return true
			}
		}
	}
	return false
}

// mountOptions returns the file system that holds a path, and its options, as mountinfo has them.
func mountOptions(mountinfo []byte, path string) (kind, options string) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", ""
	}
	longest := -1
	for line := range bytes.Lines(mountinfo) {
		// 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
		before, after, ok := strings.Cut(strings.TrimSpace(string(line)), " - ")
		field, fsField := strings.Fields(before), strings.Fields(after)
		if !ok || len(field) < 5 || len(fsField) < 3 {
			continue
		}
		point := unescape(field[4])
		if point != "/" && real != point && !strings.HasPrefix(real, point+"/") || len(point) < longest {
			continue
		}
		kind, options, longest = fsField[0], fsField[2], len(point)
	}
	return kind, options
}

// eagerTimes says whether a path is on ext4 that is not mounted with lazytime.
func eagerTimes(mountinfo []byte, path string) bool {
	kind, options := mountOptions(mountinfo, path)
	return kind == "ext4" && !slices.Contains(strings.Split(options, ","), "lazytime")
}

// unescape undoes what the kernel does to blanks and backslashes in mountinfo.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// ballast is what a journal gives up to open.
func ballast(dir string) int64 {
	var st unix.Stat_t
	if unix.Stat(filepath.Join(dir, ballastName), &st) != nil {
		return 0
	}
	return st.Blocks * 512
}

// tryMap does what the journal does with its files: lock one, and write to it through a shared map.
func tryMap(f *os.File) error {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("flock: %w", err)
	}
	if err := f.Truncate(int64(os.Getpagesize())); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mmap: %w", err)
	}
	// Not touched: on a full disk that would end the process.
	return unix.Munmap(m)
}

// holder names the process that holds a lock file's lock, as far as /proc tells.
func holder(f *os.File) string {
	var st unix.Stat_t
	locks, err := os.ReadFile("/proc/locks")
	if err != nil || unix.Fstat(int(f.Fd()), &st) != nil {
		return ""
	}
	pid := lockedBy(locks, unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	if pid <= 0 {
		return "" // of another container, or on a file system whose device number is not that of its files
	}
	name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return fmt.Sprintf(" %d", pid)
	}
	return fmt.Sprintf(" %d (%s)", pid, strings.TrimSpace(string(name)))
}

// lockedBy finds the process that holds the flock of a file in the text of /proc/locks; 0 for none.
func lockedBy(locks []byte, major, minor uint32, inode uint64) int {
	for line := range bytes.Lines(locks) {
		// 1: FLOCK  ADVISORY  WRITE 5034 fe:00:3407908 0 EOF; who waits has an arrow behind the number
		field := strings.Fields(string(line))
		if len(field) < 6 || field[1] != "FLOCK" || field[5] != fmt.Sprintf("%02x:%02x:%d", major, minor, inode) {
			continue
		}
		if pid, err := strconv.Atoi(field[4]); err == nil {
			return pid
		}
	}
	return 0
}
