package status

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestContrast adds up WCAG's contrast of every text and ground that meet on the page, in both schemes: AA wants 4.5.
func TestContrast(t *testing.T) {
	light, dark, ok := strings.Cut(style, "prefers-color-scheme: dark")
	if !ok {
		t.Fatal("no dark scheme")
	}
	colours := regexp.MustCompile(`--([a-z-]+): #([0-9a-f]{6});`)
	for scheme, css := range map[string]string{"light": light, "dark": dark} {
		luminance := map[string]float64{}
		for _, m := range colours.FindAllStringSubmatch(css, -1) {
			luminance[m[1]] = relativeLuminance(t, m[2])
		}
		grounds := map[string][]string{
			"ground": {"ink", "quiet", "link", "bad"},
			"card":   {"ink", "quiet", "link", "good", "wait", "warn", "bad"},
		}
		for _, level := range []string{"good", "wait", "warn", "bad"} {
			// Shapes of every level may stand in the state's box, whatever the worst is.
			grounds[level+"-ground"] = []string{"ink", "link", "good", "wait", "warn", "bad"}
		}
		for ground, texts := range grounds {
			for _, text := range texts {
				a, known := luminance[text]
				b, known2 := luminance[ground]
				if !known || !known2 {
					t.Fatalf("%s: no colour %s or %s", scheme, text, ground)
				}
				if c := (max(a, b) + 0.05) / (min(a, b) + 0.05); c < 4.5 {
					t.Errorf("%s: %s on %s has a contrast of %.2f", scheme, text, ground, c)
				}
			}
		}
	}
}

func relativeLuminance(t *testing.T, hex string) float64 {
	v, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	channel := func(shift uint) float64 {
		c := float64(v>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	return 0.2126*channel(16) + 0.7152*channel(8) + 0.0722*channel(0)
}
