"""The same few sentences in several languages, to compare how many tokens each needs."""

SAMPLES = {
    "English": "Every morning the baker opens his shop before sunrise. People from the whole street come to buy bread, "
    "and the children look at the cakes in the window. On Sunday the shop is closed and the street is quiet.",
    "German": "Jeden Morgen öffnet der Bäcker seinen Laden vor Sonnenaufgang. Leute aus der ganzen Straße kommen, um "
    "Brot zu kaufen, und die Kinder schauen die Kuchen im Fenster an. Am Sonntag ist der Laden geschlossen, und die "
    "Straße ist still.",
    "French": "Chaque matin, le boulanger ouvre sa boutique avant le lever du soleil. Les gens de toute la rue "
    "viennent acheter du pain, et les enfants regardent les gâteaux dans la vitrine. Le dimanche, la boutique est "
    "fermée et la rue est calme.",
    "Spanish": "Cada mañana el panadero abre su tienda antes del amanecer. La gente de toda la calle viene a comprar "
    "pan, y los niños miran los pasteles en la ventana. El domingo la tienda está cerrada y la calle está tranquila.",
    "Finnish": "Joka aamu leipuri avaa kauppansa ennen auringonnousua. Koko kadun väki tulee ostamaan leipää, ja "
    "lapset katselevat kakkuja ikkunassa. Sunnuntaina kauppa on kiinni ja katu on hiljainen.",
    "Turkish": "Her sabah fırıncı dükkânını güneş doğmadan açar. Bütün sokaktan insanlar ekmek almaya gelir, çocuklar "
    "da vitrindeki pastalara bakar. Pazar günü dükkân kapalıdır ve sokak sessizdir.",
    "Vietnamese": "Mỗi buổi sáng, người thợ làm bánh mở cửa hàng trước khi mặt trời mọc. Mọi người trên cả con phố "
    "đến mua bánh mì, còn trẻ em ngắm những chiếc bánh ngọt trong cửa sổ. Chủ nhật cửa hàng đóng cửa và con phố "
    "yên tĩnh.",
    "Greek": "Κάθε πρωί ο φούρναρης ανοίγει το μαγαζί του πριν από την ανατολή του ήλιου. Άνθρωποι από όλο τον δρόμο "
    "έρχονται να αγοράσουν ψωμί και τα παιδιά κοιτάζουν τα γλυκά στη βιτρίνα. Την Κυριακή το μαγαζί είναι κλειστό "
    "και ο δρόμος ήσυχος.",
    "Russian": "Каждое утро пекарь открывает свою лавку до восхода солнца. Люди со всей улицы приходят купить хлеб, "
    "а дети смотрят на пирожные в витрине. В воскресенье лавка закрыта, и на улице тихо.",
    "Arabic": "في كل صباح يفتح الخباز دكانه قبل شروق الشمس. يأتي الناس من الشارع كله لشراء الخبز، وينظر الأطفال إلى "
    "الكعك في الواجهة. يوم الأحد يكون الدكان مغلقا والشارع هادئا.",
    "Hindi": "हर सुबह बेकर सूर्योदय से पहले अपनी दुकान खोलता है। पूरी गली के लोग रोटी खरीदने आते हैं, "
    "और बच्चे खिड़की में रखे केक देखते हैं। रविवार को दुकान बंद रहती है और गली शांत होती है।",
    "Chinese": "每天早上，面包师在日出之前就打开店门。整条街的人都来买面包，孩子们看着橱窗里的蛋糕。"
    "星期天店铺关门，街上很安静。",
    "Japanese": "毎朝、パン屋は日の出前に店を開けます。通りじゅうの人々がパンを買いに来て、"
    "子供たちは窓のケーキを眺めます。日曜日は店が閉まり、通りは静かです。",
    "Korean": "매일 아침 제빵사는 해가 뜨기 전에 가게를 엽니다. 온 거리의 사람들이 빵을 사러 오고, "
    "아이들은 진열창의 케이크를 바라봅니다. 일요일에는 가게가 문을 닫고 거리는 조용합니다.",
}
