// Scores PNG pictures with an exported network (.onnx or .xml), using OpenVINO's runtime and libpng alone.
//
//     score model.onnx picture.png...
//
// Prints for each picture what examples/onnx_only.py prints: verdict, displayed score (1 is the threshold), share of marked pixels.
// Pictures of 16 bits are refused, and EXIF does not turn them: see picture.hpp.
// The verdict is by the thresholds as they were at the export: OK, look (a person decides), NG, or ERROR, where a value is NaN or
// infinite, with exit status 2. Whatever is not OK must not pass.

#include <openvino/openvino.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>

#include "picture.hpp"

namespace {

constexpr std::array<const char*, 4> verdicts{"OK", "look", "NG", "ERROR"};

// (1, H, W, 3) uint8, any size: resizing and normalisation are inside the network.
ov::Tensor as_tensor(const Picture& picture) {
    ov::Tensor images(ov::element::u8, {1, picture.height, picture.width, 3});
    std::memcpy(images.data<std::uint8_t>(), picture.pixels.data(), picture.pixels.size());
    return images;
}

}  // namespace

int main(int count, char** words) {
    if (count < 3) {
        std::fprintf(stderr, "usage: %s NETWORK PICTURE...\n", words[0]);
        return 2;
    }
    int status = 0;
    try {
        ov::Core core;
        auto network = core.compile_model(words[1], "CPU", ov::hint::inference_precision(ov::element::f32));
        auto request = network.create_infer_request();
        for (int k = 2; k < count; ++k) {
            request.set_tensor("images", as_tensor(read_picture(words[k])));
            request.infer();
            const float score = request.get_tensor("score").data<const float>()[0];
            const auto map = request.get_tensor("anomaly_map");
            const float* cells = map.data<const float>();
            const auto marked = std::count_if(cells, cells + map.get_size(), [](float v) { return v >= 1.0f; });
            const int verdict = request.get_tensor("verdict").data<const std::int32_t>()[0];
            status = verdict == 3 ? 2 : status;
            std::printf("%s %.6f %.4f %s\n", verdicts.at(verdict), score,
                        static_cast<double>(marked) / static_cast<double>(map.get_size()), words[k]);
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "score: %s\n", error.what());
        return 2;
    }
    return status;
}
