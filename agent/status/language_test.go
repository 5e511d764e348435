package status

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"hubagent/config"
	"hubagent/drivers"
)

// usedKeys finds the keys in the source: whole ones, and beginnings that the program completes.
func usedKeys(t *testing.T) (whole, beginnings []string) {
	files, err := filepath.Glob("*.go*")
	if err != nil {
		t.Fatal(err)
	}
	key := regexp.MustCompile(`"([a-z_]+(?:\.[a-z0-9_ ]*)*)"`)
	begun := regexp.MustCompile(`"([a-z_]+\.)(?:%s|")`)
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range key.FindAllStringSubmatch(string(text), -1) {
			whole = append(whole, m[1])
		}
		for _, m := range begun.FindAllStringSubmatch(string(text), -1) {
			beginnings = append(beginnings, m[1])
		}
	}
	return whole, beginnings
}

func TestCatalogues(t *testing.T) {
	whole, beginnings := usedKeys(t)
	all := languages()
	zh, en := all[0].texts, all[1].texts
	verb := regexp.MustCompile(`%(\[\d\])?[sd]`)
	sections := map[string]bool{}
	for key := range zh {
		section, _, _ := strings.Cut(key, ".")
		sections[section] = true
	}
	for _, key := range whole {
		section, _, dotted := strings.Cut(key, ".")
		if _, ok := zh[key]; !ok && dotted && sections[section] && !strings.HasSuffix(key, ".") {
			t.Errorf("%s is used and missing in zh.yaml", key)
		}
	}
	for key := range zh {
		if _, ok := en[key]; !ok {
			t.Errorf("%s is missing in en.yaml", key)
		}
		used := slices.Contains(whole, key) || slices.ContainsFunc(beginnings, func(b string) bool { return strings.HasPrefix(key, b) })
		if !used {
			t.Errorf("%s is used nowhere", key)
		}
	}
	for key, text := range en {
		if _, ok := zh[key]; !ok {
			t.Errorf("%s is missing in zh.yaml", key)
			continue
		}
		// The form for several, which has every verb, takes the same ones in both languages.
		_, many, two := strings.Cut(text, " | ")
		if !two {
			many = text
		}
		_, zhMany, two := strings.Cut(zh[key], " | ")
		if !two {
			zhMany = zh[key]
		}
		a, b := verb.FindAllString(many, -1), verb.FindAllString(zhMany, -1)
		slices.Sort(a)
		slices.Sort(b)
		if !slices.Equal(a, b) {
			t.Errorf("%s takes %v in en.yaml and %v in zh.yaml", key, a, b)
		}
	}
}

// TestEveryStateHasItsWord goes through the keys that are put together at run time.
func TestEveryStateHasItsWord(t *testing.T) {
	var keys []string
	for _, l := range []level{good, wait, warn, bad} {
		keys = append(keys, "level."+l.String())
	}
	for _, k := range []config.DeviceKind{config.Bin, config.Meter, config.Camera, config.Contact} {
		keys = append(keys, "kind."+string(k))
	}
	for _, q := range []drivers.Quality{0, drivers.Good, drivers.NotEvaluated, drivers.Suspect, drivers.Bad, drivers.Missing} {
		keys = append(keys, fmt.Sprintf("quality.%d", q))
	}
	for _, s := range []LinkState{LinkOff, LinkOffline, LinkSilent, LinkOnline} {
		keys = append(keys, "link."+string(s))
	}
	for _, k := range []CardKind{CardEMMC, CardSD, CardDisk} {
		keys = append(keys, "card."+string(k))
	}
	for _, r := range []Reserve{ReserveNormal, ReserveWarning, ReserveUrgent} {
		keys = append(keys, "card.reserve."+string(r))
	}
	for _, c := range []string{"ok", "unsync", "step"} {
		keys = append(keys, "clock."+c)
	}
	for _, f := range []drivers.Failure{drivers.Link, drivers.Timeout, drivers.CRC, drivers.Frame} {
		keys = append(keys, "why."+f.String(), "mend."+f.String())
	}
	for _, f := range []string{"fault", "alarm", "normal", "online", "running", "door", "active"} {
		keys = append(keys, "bool."+f+".on", "bool."+f+".off")
	}
	for _, l := range languages() {
		for _, key := range keys {
			if _, ok := l.texts[key]; !ok {
				t.Errorf("%s has no text in %s", key, l.Code)
			}
		}
		// A page of every snapshot has no verb left over and no key for a text.
		for name, s := range testSnapshots() {
			page := strings.Replace(body(t, get(t, s, "/?lang="+l.Code)), style, "", 1)
			for _, wrong := range []string{"%!", "%s", "%d", "state.", "device.", "quality.", "{names}", "ZgotmplZ"} {
				if strings.Contains(page, wrong) {
					t.Errorf("page %s in %s has %q", name, l.Code, wrong)
				}
			}
		}
	}
}

func TestCardInWords(t *testing.T) {
	for _, c := range []struct {
		card   Card
		zh, en string
		worn   bool
	}{
		{Card{}, "未知", "not known", false},
		{Card{Device: "vda", Kind: CardDisk}, "vda：不报告磨损程度；在配置里写上 journal.card_endurance 即可估算", "vda: it does not tell how worn it is; give journal.card_endurance for an estimate", false},
		{Card{Device: "mmcblk1", Kind: CardEMMC, LifeUsed: 10, Reserve: ReserveNormal}, "mmcblk1（eMMC）：寿命已用 0% 至 10%，备用块正常", "mmcblk1 (eMMC): 0–10 % of its life used, spare blocks in order", false},
		{Card{Device: "mmcblk1", Kind: CardEMMC, LifeUsed: 110, Reserve: ReserveUrgent}, "mmcblk1（eMMC）：已超出设计寿命，备用块已用 90%", "mmcblk1 (eMMC): beyond the life it was made for, 90 % of its spare blocks used", true},
		{Card{Device: "mmcblk1", Kind: CardEMMC, LifeUsed: 50, Reserve: ReserveWarning}, "mmcblk1（eMMC）：寿命已用 40% 至 50%，备用块已用 80%", "mmcblk1 (eMMC): 40–50 % of its life used, 80 % of its spare blocks used", true},
		{Card{Device: "mmcblk0", Kind: CardSD, Endurance: 10e12}, "mmcblk0（SD 卡）：额定写入 10.0 TB，运行 1 小时后可估算剩余年限", "mmcblk0 (SD card): rated 10.0 TB; the years left are known after an hour", false},
		{Card{Device: "mmcblk0", Kind: CardSD, Endurance: 10e12, YearsLeft: 121.8}, "mmcblk0（SD 卡）：按网关自身的写入量，还可用约 121 年（额定写入 10.0 TB）", "mmcblk0 (SD card): about 121 years left of the rated 10.0 TB, by what the agent writes", false},
		{Card{Device: "mmcblk0", Kind: CardSD, Endurance: 1e11, YearsLeft: 0.01}, "mmcblk0（SD 卡）：按网关自身的写入量，还可用约 3 天（额定写入 100.0 GB）", "mmcblk0 (SD card): about 3 days left of the rated 100.0 GB, by what the agent writes", true},
		{Card{Device: "x", Kind: CardSD, Endurance: 1e15, YearsLeft: 1e300}, "x（SD 卡）：按网关自身的写入量，还可用约 200 年（额定写入 1000.0 TB）", "x (SD card): about 200 years left of the rated 1000.0 TB, by what the agent writes", false},
	} {
		if got := languages()[0].card(c.card); got != c.zh {
			t.Errorf("got %q, want %q", got, c.zh)
		}
		if got := languages()[1].card(c.card); got != c.en {
			t.Errorf("got %q, want %q", got, c.en)
		}
		if c.card.worn() != c.worn {
			t.Errorf("%+v: worn is %v", c.card, c.card.worn())
		}
	}
}

func TestAges(t *testing.T) {
	zh, en := languages()[0], languages()[1]
	for _, c := range []struct {
		age    time.Duration
		zh, en string
	}{
		{-time.Hour, "刚刚", "just now"},
		{900 * time.Millisecond, "刚刚", "just now"},
		{20*time.Second + 900*time.Millisecond, "20 秒前", "20 s ago"},
		{59 * time.Second, "59 秒前", "59 s ago"},
		{3 * time.Minute, "3 分钟前", "3 min ago"},
		{47 * time.Hour, "47 小时前", "47 h ago"},
		{49 * time.Hour, "2 天前", "2 days ago"},
	} {
		if got := zh.ago(testNow, testNow.Add(-c.age)); got != c.zh {
			t.Errorf("%v: %q, want %q", c.age, got, c.zh)
		}
		if got := en.ago(testNow, testNow.Add(-c.age)); got != c.en {
			t.Errorf("%v: %q, want %q", c.age, got, c.en)
		}
	}
	if got := en.ago(testNow, time.Time{}); got != "never" {
		t.Errorf("zero time: %q", got)
	}
	if got := zh.clock(testNow, testNow.Add(-24*time.Hour).UTC()); got != "3月4日 09:26" {
		t.Errorf("yesterday: %q", got)
	}
}

func TestFigures(t *testing.T) {
	for ucum, want := range map[string]string{
		"": "", "1": "", "{count}": "", "kW.h": "kWh", "kW.h{total}": "kWh", "Cel": "°C", "V.A": "VA", "%": "%", "kvar.h": "kvarh", "m3": "m³",
	} {
		if got := unitSign(ucum); got != want {
			t.Errorf("unit %q: %q, want %q", ucum, got, want)
		}
	}
	for number, want := range map[string]string{
		"0": "0", "-0.50": "-0.50", "9999": "9999", "10000": "10,000", "-1234567.125": "-1,234,567.125", "18446744073709551615": "18,446,744,073,709,551,615",
		"1e+30": "1e+30", "12345.6789": "12,345.6789",
	} {
		if got := grouped(number); got != want {
			t.Errorf("number %q: %q, want %q", number, got, want)
		}
	}
	en := languages()[1]
	for _, c := range []struct {
		title config.Text
		on    string
		alert bool
		off   string
	}{
		{config.Text{ZH: "设施故障", EN: "facility fault"}, "fault", true, "normal"},
		{config.Text{ZH: "高空抛物报警", EN: "thrown object seen"}, "alarm", true, "no alarm"},
		{config.Text{EN: "Pump running"}, "running", false, "stopped"},
		{config.Text{EN: "Relay 3"}, "active", false, "not active"},
	} {
		if word, alert := en.stateWord(c.title, true); word != c.on || alert != c.alert {
			t.Errorf("%v on: %q %v", c.title, word, alert)
		}
		if word, alert := en.stateWord(c.title, false); word != c.off || alert {
			t.Errorf("%v off: %q %v", c.title, word, alert)
		}
	}
}
