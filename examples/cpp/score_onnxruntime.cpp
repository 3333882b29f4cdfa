// Scores PNG pictures with an exported network (.onnx), using ONNX Runtime and libpng alone.
//
//     score_onnxruntime model.onnx picture.png...
//
// Prints for each picture what examples/onnx_only.py prints: verdict, displayed score (1 is the limit), share of marked pixels.
// A score or map that is not finite gives ERROR and exit status 2: the part must not pass.

#include <onnxruntime_cxx_api.h>
#include <png.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Picture {
    std::vector<std::uint8_t> pixels;       // RGB, row by row
    std::array<std::int64_t, 4> shape{};    // (1, H, W, 3), any size: resizing and normalisation are inside the network
};

Picture read_picture(const std::string& path) {
    png_image header{};
    header.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_file(&header, path.c_str())) {
        throw std::runtime_error(path + " cannot be read (" + header.message + ")");
    }
    header.format = PNG_FORMAT_RGB;
    Picture picture{std::vector<std::uint8_t>(PNG_IMAGE_SIZE(header)), {1, header.height, header.width, 3}};
    const png_color black{0, 0, 0};
    if (!png_image_finish_read(&header, &black, picture.pixels.data(), 0, nullptr)) {
        throw std::runtime_error(path + " cannot be read (" + header.message + ")");
    }
    return picture;
}

}  // namespace

int main(int count, char** words) {
    if (count < 3) {
        std::fprintf(stderr, "usage: %s NETWORK PICTURE...\n", words[0]);
        return 2;
    }
    int status = 0;
    try {
        Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "andon");
        Ort::Session session(environment, words[1], Ort::SessionOptions{});
        const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
        const char* const inputs[] = {"images"};
        const char* const outputs[] = {"score", "anomaly_map"};
        for (int k = 2; k < count; ++k) {
            Picture picture = read_picture(words[k]);
            const auto images = Ort::Value::CreateTensor<std::uint8_t>(
                memory, picture.pixels.data(), picture.pixels.size(), picture.shape.data(), picture.shape.size());
            const auto answers = session.Run(Ort::RunOptions{}, inputs, &images, 1, outputs, 2);
            const float score = answers[0].GetTensorData<float>()[0];
            const float* cells = answers[1].GetTensorData<float>();
            const std::size_t size = answers[1].GetTensorTypeAndShapeInfo().GetElementCount();
            const auto marked = std::count_if(cells, cells + size, [](float v) { return v >= 1.0f; });
            const bool finite = std::isfinite(score) &&
                                std::all_of(cells, cells + size, [](float v) { return std::isfinite(v); });
            status = finite ? status : 2;  // no verdict: the part must not pass
            std::printf("%s %.6f %.4f %s\n", !finite ? "ERROR" : score >= 1.0f ? "NG" : "OK", score,
                        static_cast<double>(marked) / static_cast<double>(size), words[k]);
        }
    } catch (const std::exception& error) {
        std::fprintf(stderr, "score_onnxruntime: %s\n", error.what());
        return 2;
    }
    return status;
}
