package buffer

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPlaceByStatfs(t *testing.T) {
	for _, c := range []struct {
		name  string
		magic uint32
		st    unix.Statfs_t
		want  string // of the error; "" for none
	}{
		{"ext4", 0xef53, unix.Statfs_t{Files: 10, Ffree: 1}, ""},
		{"f2fs", 0xf2f52010, unix.Statfs_t{Files: 10, Ffree: 1}, ""},
		{"btrfs counts no inodes", 0x9123683e, unix.Statfs_t{}, ""},
		{"tmpfs", 0x01021994, unix.Statfs_t{}, ""},
		{"unknown", 0x72b6, unix.Statfs_t{}, ""},
		{"read-only", 0xef53, unix.Statfs_t{Flags: unix.ST_RDONLY}, "its file system is read-only: mount it writable"},
		{"no inodes", 0xef53, unix.Statfs_t{Files: 10}, "no inode left: remove files there"},
		{"FAT", 0x4d44, unix.Statfs_t{}, "(FAT) keeps no order of writes over a power cut and no modes for keys: use a folder on ext4 or f2fs"},
		{"exFAT", 0x2011bab0, unix.Statfs_t{}, "(exFAT) keeps no order"},
		{"NTFS", 0x7366746e, unix.Statfs_t{}, "(NTFS) keeps no order"},
		{"NFS", 0x6969, unix.Statfs_t{}, "network file system (NFS), where a power cut or a lost link can undo what was synced: use a folder"},
		{"SMB", 0xfe534d42, unix.Statfs_t{}, "network file system (SMB)"},
		{"CIFS", 0xff534d42, unix.Statfs_t{}, "network file system (SMB)"},
		{"9p", 0x01021997, unix.Statfs_t{}, "network file system (9p)"},
		{"FUSE", 0x65735546, unix.Statfs_t{}, "(FUSE) is a program"},
	} {
		setType(&c.st.Type, c.magic)
		place, _, err := judge("/srv/state", c.st)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "/srv/state")) {
			t.Errorf("%s: %v", c.name, err)
		}
		if place.Volatile != (c.name == "tmpfs") {
			t.Errorf("%s: in memory: %v", c.name, place.Volatile)
		}
	}
}

// setType sets the type of a statfs, which is signed and of 32 or 64 bits.
func setType[T int32 | int64](field *T, magic uint32) { *field = T(magic) }

func TestPlaceOnRealMounts(t *testing.T) {
	if _, err := CheckPlace(smallDisk(t, "6m")); err == nil || !strings.Contains(err.Error(), "only 6 MB are free on its file system, and it takes 8 MB: make space there") {
		t.Errorf("small disk: %v", err)
	}
	disk := smallDisk(t, "20m")
	place, err := CheckPlace(filepath.Join(disk, "not", "there", "yet"))
	if err != nil || place != (Place{FileSystem: "tmpfs", Volatile: true}) {
		t.Errorf("tmpfs: %+v %v", place, err)
	}
	over := t.TempDir()
	for _, sub := range []string{"lower", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(disk, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	options := "lowerdir=" + disk + "/lower,upperdir=" + disk + "/upper,workdir=" + disk + "/work"
	if err := unix.Mount("overlay", over, "overlay", 0, options); err != nil {
		t.Log("no overlay here:", err)
	} else {
		defer unix.Unmount(over, unix.MNT_DETACH)
		if place, err := CheckPlace(over); err != nil || place != (Place{FileSystem: "overlay", Volatile: true}) {
			t.Errorf("overlay on tmpfs: %+v %v", place, err)
		}
		if left, err := os.ReadDir(over); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	}
	if err := unix.Mount("", disk, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skip(err)
	}
	if _, err := CheckPlace(filepath.Join(disk, "state")); err == nil || !strings.Contains(err.Error(), "read-only: mount it writable") {
		t.Errorf("read-only: %v", err)
	}
}

func TestPlaceOnThisDisk(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err == nil {
		err = tryMap(f)
	}
	if err != nil {
		t.Error(err)
	}
	f.Close()
	if _, err := CheckPlace("/proc/hubagent"); err == nil || !strings.Contains(err.Error(), "/proc/hubagent") {
		t.Errorf("/proc: %v", err)
	}
	if _, err := CheckPlace("/dev/null/state"); err == nil {
		t.Error("a folder in a device is taken")
	}
}

func TestVolatileUpper(t *testing.T) {
	memory, dir := smallDisk(t, "1m"), t.TempDir()
	line := func(point, options string) string {
		return "36 35 0:32 / " + point + " rw,noatime shared:1 - overlay overlay " + options + "\n"
	}
	for name, c := range map[string]struct {
		mounts string
		want   bool
	}{
		"upper in memory":           {line("/", "rw,lowerdir=/l,upperdir="+memory+",workdir=/w"), true},
		"upper on a disk":           {line("/", "rw,lowerdir=/l,upperdir="+filepath.Dir("/proc/self/fd")+",workdir=/w"), false},
		"upper out of sight":        {line("/", "rw,lowerdir=/l,upperdir=/no/such/folder,workdir=/w"), false},
		"syncs ignored":             {line("/", "rw,lowerdir=/l,upperdir=/no/such/folder,workdir=/w,volatile"), true},
		"a disk mounted further in": {line("/", "rw,upperdir="+memory) + "37 36 254:0 / " + dir + " rw - ext4 /dev/vda rw\n", false},
		"another mount":             {line(dir+"x", "rw,upperdir="+memory), false},
		"garbage":                   {"\n - \n1 2 3 - overlay x\n", false},
	} {
		if got := volatileUpper([]byte(c.mounts), dir); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestLockedBy(t *testing.T) {
	locks := "1: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 0 EOF\n" +
		"2: FLOCK  ADVISORY  WRITE 3517 fd:00:2531452 0 EOF\n" +
		"2: -> FLOCK  ADVISORY  WRITE 3518 fd:00:2531452 0 EOF\n" +
		"3: FLOCK  ADVISORY  WRITE 1 08:1a:99 0 EOF\n"
	for _, c := range []struct {
		major, minor uint32
		inode        uint64
		want         int
	}{{0xfd, 0, 2531452, 3517}, {8, 0x1a, 99, 1}, {8, 0x1a, 98, 0}} {
		if got := lockedBy([]byte(locks), c.major, c.minor, c.inode); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
	dir := t.TempDir()
	open(t, dir)
	_, err := Open(Options{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), " "+strconv.Itoa(os.Getpid())+" (") {
		t.Errorf("the one who has it is not named: %v", err)
	}
}

func TestEagerTimes(t *testing.T) {
	dir := t.TempDir()
	line := func(point, kind, options string) string {
		return "36 35 254:0 / " + point + " rw,noatime shared:1 - " + kind + " /dev/vda " + options + "\n"
	}
	for mounts, want := range map[string]bool{
		line("/", "ext4", "rw"):                                      true,
		line("/", "ext4", "rw,lazytime"):                             false,
		line("/", "ext4", "rw") + line(dir, "ext4", "rw,lazytime"):   false,
		line("/", "ext4", "rw,lazytime") + line(dir, "ext4", "rw,x"): true,
		line("/", "f2fs", "rw"):                                      false,
		"garbage":                                                    false,
	} {
		if got := eagerTimes([]byte(mounts), dir); got != want {
			t.Errorf("%q: %v", mounts, got)
		}
	}
}
