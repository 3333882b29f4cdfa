// A PNG as andon reads it: (H, W, 3) RGB of 8 bits, values as stored whatever gamma the file names, transparent pixels on black.
//
// Refused: other formats, 16 bits a value, animations, less than 8 x 8 pixels. Not read: rotation by EXIF (the picture stays
// as stored).

#pragma once

#include <png.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

struct Picture {
    std::size_t height = 0, width = 0;
    std::vector<std::uint8_t> pixels;  // RGB, row by row
};

// The chunks that hold pixels. libpng would convert by gAMA, cHRM, iCCP and sRGB; tRNS counts for palettes alone, as in Pillow.
inline std::vector<std::uint8_t> chunks_of_pixels(const std::vector<std::uint8_t>& file, const std::string& path) {
    constexpr std::size_t SIGNATURE = 8, AROUND = 12, COLOUR_TYPE = 25;
    std::vector<std::uint8_t> kept(file.begin(), file.begin() + SIGNATURE);
    for (std::size_t at = SIGNATURE; at + AROUND <= file.size();) {
        const std::size_t length = (std::size_t{file[at]} << 24) + (std::size_t{file[at + 1]} << 16) +
                                   (std::size_t{file[at + 2]} << 8) + file[at + 3];
        const std::size_t end = std::min(file.size(), at + AROUND + length);
        const std::string name(file.begin() + at + 4, file.begin() + at + 8);
        if (name == "acTL") {
            throw std::runtime_error(path + " holds several pictures");
        }
        if (name == "IHDR" || name == "PLTE" || name == "IDAT" || name == "IEND" ||
            (name == "tRNS" && file[COLOUR_TYPE] == PNG_COLOR_TYPE_PALETTE)) {
            kept.insert(kept.end(), file.begin() + at, file.begin() + end);
        }
        at = end;
    }
    return kept;
}

inline Picture read_picture(const std::string& path) {
    constexpr std::size_t HEADER = 33, BIT_DEPTH = 24, SMALLEST = 8;
    std::ifstream stream(path, std::ios::binary);
    const std::vector<std::uint8_t> file{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    if (file.size() < HEADER || png_sig_cmp(file.data(), 0, 8) != 0) {
        throw std::runtime_error(path + " cannot be read (no PNG)");
    }
    if (file[BIT_DEPTH] > 8) {
        throw std::runtime_error(path + " has 16 bits a value: save it with 8");
    }
    const std::vector<std::uint8_t> kept = chunks_of_pixels(file, path);
    png_image header{};
    header.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_memory(&header, kept.data(), kept.size())) {
        throw std::runtime_error(path + " cannot be read (" + header.message + ")");
    }
    if (header.width < SMALLEST || header.height < SMALLEST) {
        png_image_free(&header);
        throw std::runtime_error(path + " is smaller than 8 x 8 pixels");
    }
    header.format = PNG_FORMAT_RGBA;
    std::vector<std::uint8_t> stored(PNG_IMAGE_SIZE(header));
    if (!png_image_finish_read(&header, nullptr, stored.data(), 0, nullptr)) {
        throw std::runtime_error(path + " cannot be read (" + header.message + ")");
    }
    Picture picture{header.height, header.width, {}};
    picture.pixels.reserve(stored.size() / 4 * 3);
    for (std::size_t k = 0; k < stored.size(); k += 4) {
        for (std::size_t channel = 0; channel < 3; ++channel) {
            picture.pixels.push_back(static_cast<std::uint8_t>((stored[k + channel] * stored[k + 3] + 127) / 255));
        }
    }
    return picture;
}
